"""Read the warnings and notes that a job prints into its log, so that the run can show them on the terminal."""

from pathlib import Path

LOG = "log.txt"
WARNING, NOTE = "warning: ", "note: "


class JobLog:
    """The log of one job from now on; what earlier sessions wrote is left out."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / LOG
        self.position = self.path.stat().st_size if self.path.exists() else 0

    def new_messages(self) -> list[str]:
        """Return the warnings and notes printed since the last call; a line that is not complete yet comes later."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            complete = file.read().rpartition(b"\n")[0]
        if complete:
            self.position += len(complete) + 1
        lines = complete.decode("utf-8", errors="replace").splitlines()
        return [line for line in lines if line.startswith((WARNING, NOTE))]
