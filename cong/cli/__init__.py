"""The command line: `cong plan`, `run`, `tune`, `submit`, `status`, `report`, `decode`, `doctor`."""
