"""A Ray cluster of this machine alone, small, until standard input ends; prints its address.

python ray_head.py FOLDER CPUS
"""

import sys

import ray

if __name__ == "__main__":
    started = ray.init(
        address="local",
        num_cpus=int(sys.argv[2]),
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
        _temp_dir=sys.argv[1],
    )
    print(f"address {started.address_info['gcs_address']}", flush=True)
    sys.stdin.read()
