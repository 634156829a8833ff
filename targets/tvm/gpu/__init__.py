"""GPU targets: kernels that TVM writes as source, and the plan of launches that runs them."""
