"""Views of one set of results: JUnit, SARIF, Markdown, HTML."""
