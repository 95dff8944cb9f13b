"""What a device can do at most, by its maker's data sheet, and what renting one costs.

Data sheets print the rate of matrix products "with sparsity", for matrices of which half the entries are
zero by construction; dense matrices run at half of it. The table holds the dense rate.
"""

from dataclasses import dataclass, replace

GB, TERA = 10**9, 10**12


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one CPU."""

    name: str  # as typed after --device
    label: str
    peak_flops: float  # operations a second: dense bfloat16 products summed in float32; of the CPU, float32
    memory: int  # bytes
    bandwidth: float  # bytes a second between the chip and its memory
    price: float | None  # US dollars an hour for one; None: not rented
    source: str  # of the three figures
    price_source: str = "no price assumed: give --price"
    precision: str = "bfloat16"  # number format of the matrix products


LAMBDA = "list price on demand in a machine of 8, lambda.ai/instances, read 2026-09-20"
RUNPOD = "list price on demand, runpod.io/pricing, read 2026-10-07"

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="a100-40gb",
            label="NVIDIA A100 40 GB SXM",
            peak_flops=312 * TERA,
            memory=40 * GB,
            bandwidth=1.555 * TERA,
            price=1.99,
            source="NVIDIA A100 Tensor Core GPU data sheet (2021): BFLOAT16 312 TFLOPS, 40 GB, 1,555 GB/s",
            price_source=LAMBDA,
        ),
        Device(
            name="a100",
            label="NVIDIA A100 80 GB SXM",
            peak_flops=312 * TERA,
            memory=80 * GB,
            bandwidth=2.039 * TERA,
            price=2.79,
            source="NVIDIA A100 Tensor Core GPU data sheet (2021): BFLOAT16 312 TFLOPS, 80 GB, 2,039 GB/s",
            price_source=LAMBDA,
        ),
        Device(
            name="h100",
            label="NVIDIA H100 80 GB SXM",
            peak_flops=989.5 * TERA,
            memory=80 * GB,
            bandwidth=3.35 * TERA,
            price=3.99,
            source="NVIDIA H100 Tensor Core GPU data sheet (2023): BFLOAT16 1,979 TFLOPS with sparsity, so "
            "989.5 dense; 80 GB; 3.35 TB/s",
            price_source=LAMBDA,
        ),
        Device(
            name="h200",
            label="NVIDIA H200 141 GB SXM",
            peak_flops=989.5 * TERA,
            memory=141 * GB,
            bandwidth=4.8 * TERA,
            price=4.59,
            source="NVIDIA H200 Tensor Core GPU data sheet (2024): BFLOAT16 1,979 TFLOPS with sparsity, so "
            "989.5 dense; 141 GB; 4.8 TB/s",
            price_source=RUNPOD,
        ),
        Device(
            name="b200",
            label="NVIDIA B200 180 GB (HGX)",
            peak_flops=2250 * TERA,
            memory=180 * GB,
            bandwidth=7.7 * TERA,
            price=6.69,
            source="NVIDIA HGX B200 data sheet (2025): BF16 36 PFLOPS with sparsity for 8, so 2.25 dense for "
            "one; 1.44 TB for 8; 7.7 TB/s (the DGX B200 data sheet rounds to 8)",
            price_source=LAMBDA,
        ),
        Device(
            name="l4",
            label="NVIDIA L4 24 GB",
            peak_flops=121 * TERA,
            memory=24 * GB,
            bandwidth=0.3 * TERA,
            price=None,
            source="NVIDIA L4 Tensor Core GPU data sheet (2023): BFLOAT16 242 TFLOPS with sparsity, so 121 "
            "dense; 24 GB; 300 GB/s",
        ),
        Device(
            name="rtx4090",
            label="NVIDIA GeForce RTX 4090 24 GB",
            peak_flops=165.2 * TERA,
            memory=24 * GB,
            bandwidth=1.008 * TERA,
            price=None,
            source="NVIDIA Ada GPU Architecture white paper (2022), appendix A: BF16 with FP32 accumulate "
            "165.2 TFLOPS dense; 24 GB; 1,008 GB/s",
        ),
        Device(
            name="cpu",
            label="CPU, one core",
            peak_flops=96e9,
            memory=8 * GB,
            bandwidth=20e9,
            price=None,
            source="no data sheet: 3 GHz times 32 float32 operations a cycle (two AVX2 units for 8 fused "
            "products and sums each); memory and bandwidth are stand-ins, of this machine where it is known",
            precision="float32",
        ),
    )
}


def device_named(name: str) -> Device:
    """Return a row of the table. Raises: ValueError naming the rows.

    >>> device_named("h100").peak_flops / device_named("a100").peak_flops > 3
    True
    """
    if name not in DEVICES:
        raise ValueError(f"no device is called {name!r}; there are {', '.join(DEVICES)}")
    return DEVICES[name]


def with_price(device: Device, price: float | None) -> Device:
    """Return the device at a price of the user's own. Raises: ValueError for a price below 0."""
    if price is None:
        return device
    if not price >= 0:
        raise ValueError(f"price must be 0 or more dollars an hour, got {price}")
    return replace(device, price=price, price_source="given with --price")
