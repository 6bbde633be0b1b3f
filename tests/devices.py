"""The device of ``pytest --device``, on which tests create their tensors."""

from __future__ import annotations

import os

import torch

NAME = os.environ.get("RLX_TEST_DEVICE", "cpu")
"""Set by conftest.py, which must not import torch."""

if NAME == "second":
    from tests.second_device import DEVICE, SecondDevice

    SecondDevice().__enter__()  # until the process ends: modules of tests create tensors when they are imported
else:
    DEVICE = torch.device(NAME)
