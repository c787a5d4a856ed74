"""What lies next to an exported page: how to serve it, and the license of its runtime."""

from vqtrain.formats.parts.web_runtime import NAME, VERSION

README = f"""# An image tokenizer as a web page

`index.html` encodes a picture into token ids, shows them as a map, decodes them, and decodes them
again when one is changed. All of it is computed in the browser; no picture leaves it, and the page
asks for nothing but the files of this folder. Serve the folder with any static server, such as

```sh
python -m http.server --bind 127.0.0.1 --directory .
```

and open <http://127.0.0.1:8000>. Opened from a disk it does not run: browsers load no modules from
there. The camera needs `localhost` or https.

`encoder.onnx` and `decoder.onnx` are run by {NAME} {VERSION} in `runtime/`, on the GPU where the
browser has WebGPU, else on the CPU. A server that sends `Cross-Origin-Opener-Policy: same-origin`
and `Cross-Origin-Embedder-Policy: require-corp` lets it use several threads there. What the ids
mean is in `config.json`.
"""

LICENSE = f"""{NAME} {VERSION}, MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
