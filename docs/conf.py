"""The documentation site: `pip install '.[docs]' && sphinx-build -W docs site`."""

project = "optc"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "optc"
exclude_patterns = ["site"]
