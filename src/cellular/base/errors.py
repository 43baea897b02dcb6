"""Errors that are the user's to mend, told in one line, without a traceback."""

from collections.abc import Sequence

SHOWN_FAULTS = 20  # a listing that fills more than a screen hides its first line


class InputError(Exception):
    """Something that was given is wrong. The message names what, what was expected, what to do."""


def raise_faults(where: object, faults: Sequence[str]) -> None:
    """Raise one `InputError` that tells every fault; return if there is none.

    The first line counts the faults and names `where` they are; each fault has a line of its own.
    """
    if not faults:
        return
    if len(faults) == 1:
        raise InputError(faults[0])
    told = [f"  {fault}" for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        told.append(f"  ... and {len(faults) - SHOWN_FAULTS} more")
    raise InputError("\n".join([f"{len(faults)} faults in {where}:", *told]))
