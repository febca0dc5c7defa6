"""Runs one dimension of the official VBench. Started by `official` in VBench's own environment.

usage: python vbench_driver.py VIDEOS DIMENSION OUT DEVICE IMAGING_MODE

Writes OUT/motive_eval_results.json, as VBench does, and OUT/version.json. It imports nothing of motive.
"""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version


def main(videos: str, dimension: str, out: str, device: str, imaging_mode: str) -> None:
    import torch
    from vbench import VBench  # type: ignore[import-not-found]

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = version("vbench")
    except PackageNotFoundError:
        found = "of a checkout"
    with open(os.path.join(out, "version.json"), "w", encoding="utf-8") as file:
        json.dump({"vbench": found, "device": device}, file)
    VBench(torch.device(device), "", out).evaluate(
        videos_path=videos,
        name="motive",
        dimension_list=[dimension],
        mode="custom_input",
        imaging_quality_preprocessing_mode=imaging_mode,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
