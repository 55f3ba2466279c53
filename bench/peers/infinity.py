# /// script
# dependencies = [
#   "infinity-emb[optimum,server,torch]==0.0.78",
#   "transformers==4.57.6",
#   "optimum==1.27.0",
#   "torch==2.14.1",
#   "click==8.1.8",
#   "typer==0.15.4",
# ]
# ///
"""infinity, a server of OpenAI's embeddings API."""

from __future__ import annotations

import os
import sys

VARIANTS = {"torch": "infinity on PyTorch"}
MAKES = ()
NEEDS = ("checkpoint",)
SERVES = True


def main() -> None:
    """Serve a folder: port, threads, engine, folder."""
    port, threads, engine, folder = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
    import uvicorn
    from infinity_emb import EngineArgs, create_server

    arguments = EngineArgs(
        model_name_or_path=folder,
        served_model_name="all-MiniLM-L6-v2",
        engine=engine,
        device="cpu",
        bettertransformer=False,  # refuses newer versions of PyTorch
        lengths_via_tokenize=False,
    )
    uvicorn.run(
        create_server(engine_args_list=[arguments], url_prefix="/v1"),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
    )


if __name__ == "__main__":
    main()
