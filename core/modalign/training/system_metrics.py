"""What the machine is doing, under MLflow's own metric names."""

from __future__ import annotations

import os
import time
from typing import Any


class SystemMetrics:
    """A sampler of CPU, memory, disk and network through psutil, and of GPUs through NVML if installed."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # starts the clock: a reading is the mean since the one before
        time.sleep(0.1)
        network = psutil.net_io_counters()
        self._received = network.bytes_recv if network else 0
        self._sent = network.bytes_sent if network else 0
        self._nvml, self._gpus = _gpus()

    def sample(self) -> dict[str, float]:
        """The readings of this moment, ``{"system/cpu_utilization_percentage": 12.5, ...}``."""
        memory = self._psutil.virtual_memory()
        disk = self._psutil.disk_usage(os.sep)
        network = self._psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }
        if network:
            values["network_receive_megabytes"] = (network.bytes_recv - self._received) / 1e6
            values["network_transmit_megabytes"] = (network.bytes_sent - self._sent) / 1e6
        for index, gpu in enumerate(self._gpus):
            for name, value in _gpu_sample(self._nvml, gpu).items():
                values[f"gpu_{index}_{name}"] = value
        return {f"system/{name}": round(float(value), 1) for name, value in values.items()}


def _gpus() -> tuple[Any, list[Any]]:
    """NVML and its device handles; none without ``nvidia-ml-py`` or without a GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except Exception:
        return None, []


def _gpu_sample(nvml: Any, gpu: Any) -> dict[str, float]:
    """What one GPU tells; some lack a power meter, so each reading stands alone."""
    values = {}
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        values["memory_usage_megabytes"] = memory.used / 1e6
        values["memory_usage_percentage"] = 100 * memory.used / memory.total
        values["utilization_percentage"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
        power, limit = nvml.nvmlDeviceGetPowerUsage(gpu), nvml.nvmlDeviceGetPowerManagementLimit(gpu)
        values["power_usage_watts"] = power / 1000
        values["power_usage_percentage"] = 100 * power / limit
    except nvml.NVMLError:
        pass
    return values
