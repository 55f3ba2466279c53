# /// script
# dependencies = [
#   "infinity-emb[optimum,server,torch]==0.0.78",
#   "transformers==4.48.3",
#   "optimum==1.27.0",
#   "torch==2.8.0",
#   "click==8.1.8",
#   "typer==0.12.5",
#   "pyarrow==19.0.1",
# ]
# ///
"""infinity, a server of OpenAI's embeddings API."""

from __future__ import annotations

import os
import sys

VARIANTS = {"torch": "infinity on PyTorch, FP32", "optimum": "infinity on ONNX Runtime, dynamic INT8"}
PROVIDES = ()
REQUIRES = ("checkpoint", "onnx-int8")
SERVES = True


def main() -> None:
    """Serve. Arguments: port, threads, engine, folder of the checkpoint, folder of the ONNX files."""
    port, threads, engine, checkpoint, onnx = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
    import uvicorn
    from infinity_emb import EngineArgs, create_server

    arguments = EngineArgs(
        model_name_or_path=checkpoint if engine == "torch" else onnx,
        served_model_name="all-MiniLM-L6-v2",
        engine=engine,
        device="cpu",
        bettertransformer=False,  # BetterTransformer refuses newer versions of PyTorch
        lengths_via_tokenize=False,
    )
    uvicorn.run(
        create_server(engine_args_list=[arguments], url_prefix="/v1"),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        timeout_keep_alive=75,  # without this option, infinity disconnects clients whose requests wait
    )


if __name__ == "__main__":
    main()
