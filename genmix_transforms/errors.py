"""The package's errors: every one names what was expected, what was got, and the way out."""


class InputError(ValueError):
    """Something the user gave is unusable: raised before any work starts."""


class MissingPathError(InputError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    # OSError formats itself from (errno, text); these errors carry one sentence.
    __str__ = InputError.__str__


class OverwriteError(InputError, FileExistsError):
    """The work would overwrite something, and was not told to."""

    __str__ = InputError.__str__


class UnwritableError(InputError, PermissionError):
    """A file or folder cannot be written: it is read-only, or belongs to somebody else."""

    __str__ = InputError.__str__


class DiskFullError(OSError):
    """A write failed because the disk is full. What was there before is as it was."""

    __str__ = InputError.__str__


class CorruptFileError(RuntimeError):
    """A file of ours does not hold what its manifest says."""


class UnfinishedBankError(RuntimeError):
    """This process's share of a bank is done, others are still at theirs."""


class MissingExtraError(ImportError):
    """An optional library is needed: the message names the extra to install."""

    @classmethod
    def naming(cls, library: str, *, extra: str, needed_by: str) -> "MissingExtraError":
        """The error in the words that every extra has.

        Args:
            library: what is not installed, by the name that it is installed by.
            extra: the one of this package that brings it.
            needed_by: the subject of the sentence.

        Example:
            >>> print(MissingExtraError.naming("peft", extra="lora", needed_by="--tune lora"))
            --tune lora needs peft, which is not installed: pip install 'genmix-transforms[lora]'
        """
        return cls(f"{needed_by} needs {library}, which is not installed: pip install 'genmix-transforms[{extra}]'")


class Terminated(KeyboardInterrupt):
    """The process was told to end (SIGTERM): it stops as for Ctrl-C."""
