# /// script
# dependencies = [
#   "llama-cpp-python[server]==0.3.36",
# ]
# ///
"""The server of llama.cpp's Python binding, with OpenAI's embeddings API; it answers requests one by one."""

from __future__ import annotations

import sys

VARIANTS = {"Q8_0": "llama-cpp-python's server, Q8_0"}
PROVIDES = ()
REQUIRES = ("gguf",)
SERVES = True

MAX_BATCH_TOKENS = 4096


def main() -> None:
    """Serve. Arguments: port, threads, variant, folder of the GGUF files."""
    port, threads, variant, gguf = sys.argv[1:]
    import uvicorn
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    model = ModelSettings(
        model=f"{gguf}/{variant}.gguf",
        model_alias="all-MiniLM-L6-v2",
        embedding=True,
        n_ctx=MAX_BATCH_TOKENS,
        n_batch=MAX_BATCH_TOKENS,
        n_ubatch=MAX_BATCH_TOKENS,
        n_threads=int(threads),
        n_threads_batch=int(threads),
        verbose=False,
    )
    # without this option, a new request interrupts the one before it
    settings = ServerSettings(interrupt_requests=False)
    app = create_app(server_settings=settings, model_settings=[model])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
