"""The version, apart, so that nothing has to import the package's face to know it."""

__version__ = "0.1.0"
