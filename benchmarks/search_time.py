"""Measure how long searches take: one from nothing, one at another budget, and one at a near budget.

uv run python benchmarks/search_time.py                    # seven minutes on one core
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.latency.device import Device
from nas.runs.folder import versions
from nas.runs.record import load_record

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search_time.json"
# Budgets (ms) one after another with the same table, and the seconds that are wanted.
WANTED = {20.0: 150, 6.0: 75, 5.8: 30}


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for budget_ms, wanted in WANTED.items():
            rows.append(search(Path(folder), budget_ms) | {"wanted_seconds": wanted})
            print(json.dumps(rows[-1]), flush=True)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": Device.this().cpu,
        "versions": versions(),
        "searches": rows,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def search(folder: Path, budget_ms: float) -> dict[str, Any]:
    """Run a search in a folder, and return its seconds and how its attempts and its networks kept the budget."""
    command = [sys.executable, "-m", "nas.search", "--budget-ms", f"{budget_ms:g}", "--out", f"reports/{budget_ms:g}"]
    begun = time.monotonic()
    subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(HERE.parent)}, check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.monotonic() - begun
    record = load_record(folder / "reports" / f"{budget_ms:g}")
    found = {network.target: network for network in record.networks if network.found}
    targets = {
        result.target.name: {
            "budget_ms": result.target.budget_ms,
            "measured_ms": round(found[result.target.name].latency_ms, 3),
            "unused": round(1 - found[result.target.name].latency_ms / result.target.budget_ms, 4),
            "variants": len(result.variants),
            "predicted_to_measured": [round(attempt.difference, 4) for attempt in result.attempts],
        }
        for result in record.targets
    }
    stages = {stage: round(value) for stage, value in record.seconds.items()}
    return {"budget_ms": budget_ms, "seconds": round(seconds), "stages": stages, "targets": targets}


if __name__ == "__main__":
    main()
