"""The documentation site: `pip install '.[docs]' && sphinx-build -W docs site`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference

reference.main()  # the pages of the command line and of Python are those of the program that is installed

project = "optc"
extensions = ["myst_parser", "mathematics"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "optc"
exclude_patterns = ["site"]
