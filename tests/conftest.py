import os

# All are read when torch and huggingface_hub are first imported, so they are set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
# Threads that wait must not spin: on a busy machine tiny models ran eighty times slower.
os.environ["OMP_WAIT_POLICY"] = "passive"
