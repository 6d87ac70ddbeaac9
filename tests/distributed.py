"""Run a script as a user would under distributed data parallel: two processes on this machine."""

import subprocess
import sys
import textwrap

HEAD = """
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
"""


# Threads of gloo that still run when the interpreter ends now and then abort the process ("terminate called without an
# active exception"), after all that is tested is done.
TAIL = """
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


def run_distributed(body, folder, processes=2):
    """Run a script in each of several processes that know of each other.

    Args:
        body: the script; `torch`, `nn`, `dist`, `DistributedDataParallel`, `rank` and `world` are there already.
        folder: where the script is written and run; what it saves there the test can load.
        processes: how many.

    Returns:
        What all of them printed, their lines perhaps mixed: let them save what is to be compared.
    """
    script = folder / "distributed_script.py"
    script.write_text(HEAD + textwrap.dedent(body) + TAIL, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", script]
    done = subprocess.run(launch, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
