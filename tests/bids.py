"""The official BIDS validator as a function."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def bids_errors(root: Path) -> list[str]:
    """Return the errors of the official validator, one line each; warnings are left out."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    run = subprocess.run(
        [str(validator), "--format", "json", "--ignoreWarnings", str(root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    issues = json.loads(run.stdout)["issues"]["issues"]
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')} "
        f"{issue.get('issueMessage', '')}".strip()
        for issue in issues
        if issue["severity"] == "error"
    ]
