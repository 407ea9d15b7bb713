"""A folder of text files as pieces of a few lines."""

from pathlib import Path

from data.datasets.download import data_folder
from shared.errors import CourseError
from shared.folders import TEXT_SUFFIXES, walk_folder
from shared.text_files import read_text


def text_pieces(data: str, *, characters: int = 300) -> list[str]:
    """Return the text files of "folder:PATH", or of `text_small` in the data folder, in pieces of about `characters`.

    A piece ends at the end of a line. Raises CourseError when there is no such folder or no text in it, or a
    file is not UTF-8, with its name and line.
    """
    folder = Path(data.removeprefix("folder:")) if data.startswith("folder:") else data_folder() / data
    files = walk_folder(folder, TEXT_SUFFIXES).files if folder.is_dir() else ()
    pieces, piece = [], ""
    for file in files:
        for line in read_text(folder / file).splitlines(keepends=True):
            piece += line
            if len(piece) >= characters:
                pieces.append(piece)
                piece = ""
    pieces += [piece] if piece.strip() else []
    if not pieces:
        raise CourseError(f"{folder} holds no .txt file with text; name a folder that does: DATA=folder:PATH")
    return pieces
