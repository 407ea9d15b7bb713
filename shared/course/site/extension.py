"""What Sphinx does not know of by itself: pages made of code, and links as GitHub reads them, to any file or folder."""

import posixpath
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.parsers import Parser
from sphinx.transforms import SphinxTransform

from shared.course.site.listing import LISTING
from shared.course.site.pages import SOURCE

LANGUAGES = {"py": "python", "toml": "toml", "Makefile": "make"}


class SourceParser(Parser):
    """Makes a page of a file of code: its name, the way to its folder, its lines."""

    supported = ("source",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        environment = document.settings.env
        name = environment.docname
        # Found by following links and lists; among the results of a search they would bury the lessons.
        environment.metadata[name] |= {"orphan": True, "no-search": True}
        folder, _, file = name.rpartition("/")
        section = nodes.section(ids=["source"], names=["source"])
        section += nodes.title(file, file)
        if folder:
            way = nodes.paragraph("", "in ")
            way += link_to(f"{folder}/{LISTING}", name, nodes.literal(folder, folder))
            section += way
        language = LANGUAGES.get(file.rpartition(".")[2], "none")
        text = inputstring.rstrip("\n") + "\n"
        section += nodes.literal_block(text, text, language=language, linenos=text.count("\n") > 1)
        document += section


def link_to(page: str, here: str, words: nodes.Node) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "", words, refdomain="doc", reftype="myst", reftarget=page, reftargetid=None, refdoc=here, refexplicit=True
    )


class FilesAndFolders(SphinxTransform):
    """Leads links to a folder to its README, or where it has none to the list of its files; and links to code to its page."""

    default_priority = 10

    def apply(self, **_: Any) -> None:
        here = self.env.docname
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") != "myst" or node.get("refdomain"):
                continue
            path = unquote(node["reftarget"].partition("#")[0])
            goal = posixpath.normpath(posixpath.join(posixpath.dirname(here), path)).removeprefix("./")
            for page in (goal, f"{goal}/README", f"{goal}/{LISTING}"):
                if page in self.env.found_docs:
                    node.attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": None}
                    break


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_suffix(SOURCE, "source")
    app.add_source_parser(SourceParser)
    app.add_transform(FilesAndFolders)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
