"""Run a script with its arguments, and print the peak of the process's memory in GB."""

import runpy
import sys

from benchmarks import memory

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(memory("VmHWM"))
