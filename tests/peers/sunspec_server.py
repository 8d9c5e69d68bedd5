"""A SunSpec device by pymodbus, its registers laid out by pySunSpec2's model definitions: neither knows anything of
meterferry. Prints what each point is, as one line of JSON, and then answers until it is ended.

    sunspec_server.py PORT MODEL BASE
"""

import asyncio
import json
import pathlib
import struct
import sys
from decimal import Decimal

import sunspec2
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import ModbusTcpServer

SIZES = {"uint16": 1, "int16": 1, "sunssf": 1, "acc32": 2, "bitfield32": 2, "float32": 2, "pad": 1}
TEXTS = {"Mn": "Peer", "Md": "Of pymodbus", "Vr": "9.9", "SN": "PEER-1"}


def definition(model):
    path = pathlib.Path(sunspec2.__file__).parent / "models" / "json" / f"model_{model}.json"
    return json.loads(path.read_text())["group"]["points"]


def words(data):
    return list(struct.unpack(f">{len(data) // 2}H", data))


def registers(model, expected):
    """Id, length and points; `expected` is told each value as a person would write it."""
    points = definition(model)
    scales = {p["name"]: -(i % 4) for i, p in enumerate(points) if p["type"] == "sunssf"}
    body = []
    for index, point in enumerate(points[2:]):
        name, kind = point["name"], point["type"]
        size = point.get("size") or SIZES[kind]
        if kind == "string":
            body += words(TEXTS.get(name, "").encode().ljust(size * 2, b"\0"))
        elif kind == "sunssf":
            body += words(struct.pack(">h", scales[name]))
        elif kind == "int16":
            value = 7000 - 37 * index if index % 3 else -(300 + index)
            body += words(struct.pack(">h", value))
            expected[name] = format(Decimal(value).scaleb(scales[point["sf"]]).normalize(), "f")
        elif kind == "acc32":
            value = 4_000_000_000 - 12_345 * index
            body += words(struct.pack(">I", value))
            expected[name] = format(Decimal(value).scaleb(scales[point["sf"]]).normalize(), "f")
        elif kind == "float32":
            value = 0.5 + index * 1.25
            body += words(struct.pack(">f", value))
            expected[name] = format(Decimal(value).normalize(), "f")
        elif kind == "bitfield32":
            body += words(struct.pack(">I", 5))
        else:
            body += [0] * size
    return [model, len(body)] + body


async def main():
    port, model, base = (int(argument) for argument in sys.argv[1:])
    expected = {}
    chain = words(b"SunS") + registers(1, {}) + registers(model, expected) + [0xFFFF, 0]
    # pymodbus counts the first register of a block from 1.
    block = ModbusSequentialDataBlock(base + 1, chain)
    device = ModbusDeviceContext(hr=block)
    server = ModbusTcpServer(ModbusServerContext(devices=device, single=True), address=("127.0.0.1", port))
    print(json.dumps(expected), flush=True)
    await server.serve_forever()


asyncio.run(main())
