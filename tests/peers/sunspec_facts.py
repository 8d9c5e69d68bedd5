"""Prints src/source/testdata/sunspec-models.txt anew from the model definitions of the pySunSpec2 that is installed."""

import json
import pathlib

import sunspec2

SIZES = {"uint16": 1, "int16": 1, "sunssf": 1, "acc32": 2, "float32": 2, "bitfield32": 2, "pad": 1}
FOLDER = pathlib.Path(sunspec2.__file__).parent / "models" / "json"

for model in [1, *range(201, 205), *range(211, 215)]:
    offset = -2
    for point in json.loads((FOLDER / f"model_{model}.json").read_text())["group"]["points"]:
        if offset >= 0:
            facts = [point.get("sf"), point.get("units"), point.get("mandatory")]
            print(model, offset, point["name"], point["type"], *(fact or "-" for fact in facts))
        offset += point.get("size") or SIZES[point["type"]]
