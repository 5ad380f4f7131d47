"""Tools that fastapi-mcp generates from the paths of a FastAPI application, at http://127.0.0.1:PORT/mcp."""

import sys

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi_mcp import FastApiMCP

app = FastAPI(title="field", version="1.0.0")


@app.post("/echo", operation_id="echo")
def echo(text: str) -> str:
    """Answer with the text, verbatim."""
    return text


@app.post("/describe", operation_id="describe")
def describe(name: str) -> dict[str, object]:
    """Answer with an object."""
    return {"name": name, "length": len(name), "nested": {"list": [1, 2.5, None, True]}}


@app.post("/repeat", operation_id="repeat")
def repeat(text: str, times: int) -> str:
    """A large answer to a small question."""
    return text * times


@app.post("/fail", operation_id="fail")
def fail(reason: str) -> str:
    """Fail for this reason."""
    raise HTTPException(409, reason)


FastApiMCP(app).mount_http()
if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
