"""Maps between a picture and one that was cut, turned or scaled from it.

Coordinates are continuous: the first pixel reaches from 0 to 1, its middle is at 0.5, as the edges of a `Box` count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocr_model.document import Point


@dataclass(frozen=True, slots=True)
class Affine:
    """(x, y) → (a x + b y + c, d x + e y + f).

    >>> Affine.shift(10, 5).after(Affine.scale(2, 2)).point((1, 1))
    (12.0, 7.0)
    """

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 1.0
    f: float = 0.0

    @classmethod
    def shift(cls, x: float, y: float) -> Affine:
        return cls(c=float(x), f=float(y))

    @classmethod
    def scale(cls, x: float, y: float) -> Affine:
        return cls(a=float(x), e=float(y))

    @classmethod
    def turn(cls, degrees: float) -> Affine:
        """About the origin, clockwise as seen on the picture."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return cls(cos, -sin, 0.0, sin, cos, 0.0)

    def after(self, first: Affine) -> Affine:
        """The map that does `first` and then this one."""
        return Affine(
            self.a * first.a + self.b * first.d,
            self.a * first.b + self.b * first.e,
            self.a * first.c + self.b * first.f + self.c,
            self.d * first.a + self.e * first.d,
            self.d * first.b + self.e * first.e,
            self.d * first.c + self.e * first.f + self.f,
        )

    def inverse(self) -> Affine:
        """The map back.

        Raises:
            ZeroDivisionError: this one flattens the plane.
        """
        det = self.a * self.e - self.b * self.d
        a, b, d, e = self.e / det, -self.b / det, -self.d / det, self.a / det
        return Affine(a, b, -(a * self.c + b * self.f), d, e, -(d * self.c + e * self.f))

    def point(self, point: Point) -> Point:
        x, y = point
        return self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f

    def points(self, points: Iterable[Point]) -> tuple[Point, ...]:
        return tuple(self.point(point) for point in points)

    def as_tuple(self) -> tuple[float, float, float, float, float, float]:
        return self.a, self.b, self.c, self.d, self.e, self.f

    def for_opencv(self) -> npt.NDArray[np.float64]:
        """[2, 3] float64: the same map where whole numbers are the middles of pixels."""
        centred = Affine.shift(-0.5, -0.5).after(self).after(Affine.shift(0.5, 0.5))
        return np.array(centred.as_tuple()).reshape(2, 3)


IDENTITY = Affine()
