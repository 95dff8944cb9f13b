"""What every test process shares."""

import torch

# Two workers on two cores: with a thread pool each, they wait for one another.
torch.set_num_threads(1)
