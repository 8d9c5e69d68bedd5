"""What pySunSpec2 reads of a SunSpec device, as one line of JSON: the models' ids, and each point's value with its scale
factor applied. Nothing of it knows anything of meterferry.

    sunspec_client.py PORT UNIT
"""

import json
import sys

from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

port, unit = (int(argument) for argument in sys.argv[1:])
device = SunSpecModbusClientDeviceTCP(slave_id=unit, ipaddr="127.0.0.1", ipport=port, timeout=10)
device.scan()
models = {}
for model, found in device.models.items():
    if isinstance(model, int):
        found[0].read()
        models[model] = {name: point.cvalue for name, point in found[0].points.items() if point.cvalue is not None}
print(json.dumps({"base": device.base_addr, "models": models}))
device.close()
