"""A batch script with which Slurm starts one torchrun on each machine of a run."""

import math
import shlex

_SCRIPT = """\
#!/bin/bash
# {summary}
# Written by `{written_by}`. Set the partition and account of your cluster, and put
# --data and --out on a disk that every machine sees. Submit with: sbatch run.slurm
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={per_node}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem=0
#SBATCH --time={time}
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log

set -euo pipefail
export OMP_NUM_THREADS=4
DATA="${{DATA:?set DATA to the folder that llm-scratch data prepare wrote}}"
OUT="${{OUT:-runs/{name}}}"
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"

# --resume begins a run that is not there and continues one that is: a requeued job goes on.
srun --kill-on-bad-exit=1 torchrun \\
  --nnodes="$SLURM_NNODES" \\
  --nproc-per-node={per_node} \\
  --max-restarts=3 \\
  --rdzv-id="$SLURM_JOB_ID" \\
  --rdzv-backend=c10d \\
  --rdzv-endpoint="$HEAD:29500" \\
  -m llm_from_scratch.cli {arguments} \\
  --data "$DATA" --out "$OUT" --resume
"""


def slurm_script(
    name: str,
    arguments: list[str],
    *,
    devices: int,
    per_node: int = 8,
    hours: float,
    summary: str,
    written_by: str,
) -> str:
    r"""Return the script that trains recipe ``name`` on ``devices`` GPUs.

    ``arguments`` are those of llm-scratch, beginning with "train". The time limit is the predicted ``hours``
    and a quarter more, at most seven days: a longer run is requeued and resumes.
    Raises: ValueError if the GPUs do not fill whole machines.

    >>> script = slurm_script("x", ["train", "x"], devices=16, hours=10, summary="", written_by="")
    >>> [line for line in script.splitlines() if "nodes=" in line or "--time" in line]
    ['#SBATCH --nodes=2', '#SBATCH --time=0-13:00:00', '  --nnodes="$SLURM_NNODES" \\']
    """
    if per_node < 1 or devices % per_node:
        raise ValueError(
            f"{devices} GPUs do not fill machines of {per_node}: change --gpus or --gpus-per-node"
        )
    days, rest = divmod(min(7 * 24, max(1, math.ceil(1.25 * hours))), 24)
    return _SCRIPT.format(
        name=name,
        summary=summary,
        written_by=written_by,
        nodes=devices // per_node,
        per_node=per_node,
        cpus=4 * per_node,
        time=f"{days}-{rest:02}:00:00",
        arguments=shlex.join(arguments),
    )
