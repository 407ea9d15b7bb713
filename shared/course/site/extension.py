"""Extend Sphinx: pages for source files, and links to files and folders as on GitHub."""

import posixpath
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.parsers import Parser
from sphinx.transforms import SphinxTransform

from shared.course.site.pages import LISTING, SOURCE

LANGUAGES = {"py": "python", "toml": "toml", "Makefile": "make"}


class SourceParser(Parser):
    """Make a page from a source file: its name, a link to its folder, its lines."""

    supported = ("source",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        environment = document.settings.env
        name = environment.docname
        # Reached through links and listings; as search results they would outnumber the lessons.
        environment.metadata[name] |= {"orphan": True, "no-search": True}
        folder, _, file = name.rpartition("/")
        section = nodes.section(ids=["source"], names=["source"])
        section += nodes.title(file, file)
        if folder:
            folder_link = nodes.paragraph("", "in ")
            folder_link += link_to(f"{folder}/{LISTING}", name, nodes.literal(folder, folder))
            section += folder_link
        language = LANGUAGES.get(file.rpartition(".")[2], "none")
        text = inputstring.rstrip("\n") + "\n"
        section += nodes.literal_block(text, text, language=language, linenos=text.count("\n") > 1)
        document += section


def link_to(page: str, source: str, label: nodes.Node) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "", label, refdomain="doc", reftype="myst", reftarget=page, reftargetid=None, refdoc=source, refexplicit=True
    )


class FilesAndFolders(SphinxTransform):
    """Resolve links to a folder to its README or else its listing, and links to source files to their pages."""

    default_priority = 10

    def apply(self, **_: Any) -> None:
        current = self.env.docname
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") != "myst" or node.get("refdomain"):
                continue
            path = unquote(node["reftarget"].partition("#")[0])
            target = posixpath.normpath(posixpath.join(posixpath.dirname(current), path)).removeprefix("./")
            for page in (target, f"{target}/README", f"{target}/{LISTING}"):
                if page in self.env.found_docs:
                    node.attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": None}
                    break


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_suffix(SOURCE, "source")
    app.add_source_parser(SourceParser)
    app.add_transform(FilesAndFolders)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
