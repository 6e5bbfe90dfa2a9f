"""What the machine is doing, under MLflow's own metric names."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("modalign.tracking")


class SystemMetrics:
    """A thread that reads CPU, memory, disk and network through psutil, GPUs through NVML if installed.

    Inputs:
        started_at: the run's start in unix milliseconds; readings are numbered by the intervals
            since then, so that a resumed run goes on counting.
        interval: seconds between two readings.
        sink: takes the number, the time in unix milliseconds and the readings.
    """

    def __init__(
        self, started_at: int, interval: float, sink: Callable[[int, int, dict[str, float]], None]
    ) -> None:
        self._started_at, self._interval, self._sink = started_at, interval, sink
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="modalign-system-metrics", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            reader = Reader()
            # A CPU reading is the mean since the one before: the first needs a moment.
            self._stop.wait(min(0.1, self._interval))
            while not self._stop.is_set():
                at = time.time_ns() // 1_000_000
                self._sink(int((at - self._started_at) / 1000 // self._interval), at, reader.read())
                self._stop.wait(self._interval)
        except Exception as error:
            log.warning("no system metrics: %s", error)


class Reader:
    """Reads what the machine is doing right now."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()
        network = psutil.net_io_counters()
        self._received = network.bytes_recv if network else 0
        self._sent = network.bytes_sent if network else 0
        self._nvml, self._gpus = _gpus()

    def read(self) -> dict[str, float]:
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
            for name, value in _read_gpu(self._nvml, gpu).items():
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


def _read_gpu(nvml: Any, gpu: Any) -> dict[str, float]:
    """What one GPU tells; some lack a power meter, so each reading stands alone."""
    values = {}
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        values["memory_usage_megabytes"] = memory.used / 1e6
        values["memory_usage_percentage"] = 100 * memory.used / memory.total
        values["utilization_percentage"] = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
        power, limit = nvml.nvmlDeviceGetPowerUsage(gpu), nvml.nvmlDeviceGetEnforcedPowerLimit(gpu)
        values["power_usage_watts"] = power / 1000
        values["power_usage_percentage"] = 100 * power / limit
    except nvml.NVMLError:
        pass
    return values
