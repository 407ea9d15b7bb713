"""Configure Sphinx for the course's pages. (`pages.py` writes the pages, `build.py` adds MathJax.)"""

project = html_title = html_short_title = "Multimodal from Scratch"
root_doc = "README"
extensions = ["myst_nb", "sphinx.ext.mathjax", "shared.course.site.extension"]

# Markdown as GitHub renders it: mathematics between dollars, anchors for headings, no syntax that GitHub lacks.
myst_enable_extensions = ["dollarmath", "strikethrough", "tasklist"]
suppress_warnings = ["myst.strikethrough"]  # it warns that only HTML supports it, which is all that is built
myst_disable_syntax = ["myst_role", "myst_line_comment", "myst_block_break", "myst_target"]
myst_dmath_double_inline = True
myst_dmath_allow_labels = False
myst_dmath_allow_space = False
myst_dmath_allow_digits = False
myst_heading_anchors = 6
smartquotes = False
highlight_language = "none"

# Notebooks keep the outputs that were committed.
nb_execution_mode = "off"
nb_merge_streams = True

mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}}

html_theme = "furo"
html_theme_options = {
    # The colors of the course's figures, with enough contrast to the background (WCAG AA).
    "light_css_variables": {"color-brand-primary": "#00598C", "color-brand-content": "#0069A5"},
    "dark_css_variables": {"color-brand-primary": "#7CC4EE", "color-brand-content": "#6DBDEB"},
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["course.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False
