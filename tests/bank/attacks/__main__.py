"""Run the attacks: a line for each; exits 1 if one succeeds."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import ATTACKS, Attack
from .attack import CALLS, ImpossibleError, failures, run, write_bank


def main(attacks: Sequence[Attack] = ATTACKS) -> int:
    """Print what came of each attack.

    Returns:
        1 if one succeeded.
    """
    succeeded = 0
    with tempfile.TemporaryDirectory() as temporary:
        pristine = {soft: Path(temporary) / f"pristine-{soft}" for soft in (False, True)}
        for soft, folder in pristine.items():
            write_bank(folder, soft=soft)
        for number, attack in enumerate(attacks):
            folder = Path(temporary) / str(number)
            try:
                came = run(attack, pristine[attack.soft], folder)
            except ImpossibleError as error:
                print(f"SKIPPED    {attack.name}: {attack.does}: {error}")
                continue
            wrong = failures(attack, came)
            succeeded += bool(wrong)
            texts = [one.text.replace(str(folder), "bank") for one in came]
            told = (
                texts[0]
                if len(set(texts)) == 1
                else "; ".join(f"{CALLS[one.reader]}: {text}" for one, text in zip(came, texts, strict=True))
            )
            print(f"{'SUCCEEDED' if wrong else 'beaten off'} {attack.name}: {attack.does}: {told[:300]!a}")
    print(f"{len(attacks)} attacks, {succeeded} succeeded")
    return int(succeeded > 0)


if __name__ == "__main__":
    parts = sys.argv[1:]
    raise SystemExit(main([attack for attack in ATTACKS if not parts or attack.name.partition(".")[0] in parts]))
