"""What belongs to many builds: the configuration file, the lock file, the matrix of models and targets."""
