"""Beam's --setup_file wants a setup.py; everything that it would say stands in pyproject.toml."""

from setuptools import setup

setup()
