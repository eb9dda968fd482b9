import subprocess
import sys

import pytest

IN_A_PROCESS = """
import sys

import cv2
import numpy as np

from ocr_model.memory import give_back

def resident_kb(kind):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(kind))

image = np.random.default_rng(1).integers(0, 255, (400, 300), dtype=np.uint8)
found = cv2.GaussianBlur(image, (9, 9), 2)
before, own = resident_kb("RssFile"), resident_kb("RssAnon")
give_back()
after = resident_kb("RssFile")
assert (cv2.GaussianBlur(image, (9, 9), 2) == found).all()
print(before, after, own, resident_kb("RssAnon"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_libraries_are_let_go_of_and_come_back_when_they_are_needed() -> None:
    said = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True).stdout
    before, after, own_before, own_after = map(int, said.split())
    assert after < before / 2
    assert own_after > own_before / 2  # data stay
