"""A folder of text files as pieces of a few lines."""

from pathlib import Path

from data.datasets.download import data_folder
from shared.errors import CourseError


def text_pieces(data: str, *, characters: int = 300) -> list[str]:
    """Return the text files of "folder:PATH", or of `text_small` in the data folder, in pieces of about `characters`.

    A piece ends at the end of a line. Raises CourseError when there is no such folder or no text in it.
    """
    folder = Path(data.removeprefix("folder:")) if data.startswith("folder:") else data_folder() / data
    files = sorted(folder.glob("**/*.txt")) if folder.is_dir() else []
    pieces, piece = [], ""
    for file in files:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            piece += line
            if len(piece) >= characters:
                pieces.append(piece)
                piece = ""
    pieces += [piece] if piece.strip() else []
    if not pieces:
        raise CourseError(f"{folder} holds no .txt file with text; name a folder that does: DATA=folder:PATH")
    return pieces
