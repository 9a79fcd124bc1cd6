import os

# Both are read when torch and huggingface_hub are first imported, so they are set before anything else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "2"
