"""Where a run lives."""

from pathlib import Path

from ocr.files import shown
from ocr.mirror import local_folder
from ocr.settings import PathText, Setting
from trainers.config.placement import PlacementSettings


class WhereSettings(PlacementSettings):
    """The name of a run and the folder or bucket that it lies in."""

    run_name: str = Setting(
        on_resume="free",
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]|\{data\})*$",
        description="Name of the run's folder under storage_path; {data} becomes a hash of the "
        "data, so that other data makes another run beside it",
    )
    storage_path: PathText = Setting(
        "runs",
        min_length=1,
        on_resume="free",
        description="Folder of runs, or an s3:// or gs:// address; a relative one lies in "
        "LIPI_STORAGE where that is set",
    )

    @property
    def address(self) -> str:
        """Where the run lives: `storage_path/run_name`, a path or an address in a bucket."""
        return f"{self.storage_path.rstrip('/')}/{self.run_name}"

    @property
    def shown_address(self) -> str:
        """The address as a user at this prompt would write it."""
        return self.address if self.in_bucket else shown(self.local_run_dir)

    @property
    def in_bucket(self) -> bool:
        """Whether the run lives in a bucket."""
        return "://" in self.storage_path

    @property
    def local_run_dir(self) -> Path:
        """The run's folder on this machine: `storage_path/run_name`, or its copy in the cache."""
        return local_folder(self.address)
