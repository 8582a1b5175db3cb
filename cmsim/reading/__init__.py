"""Reading what users write, and writing files whole: YAML with lines, specs, names of what is built in.

Tables, JSON in blocks, bytes of archives and the finding of formats have pages of their own, for those who need them.
"""

from cmsim.reading.documents import Document, Path_, dotted, parse_json, parse_yaml, read_shared, read_text, read_yaml
from cmsim.reading.keys import merge, parts_of, set_dotted, whole
from cmsim.reading.names import DATA, aliases_of, builtin_files, builtin_tree, find, locate
from cmsim.reading.quantities import Bytes, Tokens, TokensOrNone
from cmsim.reading.regular import exists
from cmsim.reading.sizes import Size, size_at
from cmsim.reading.specs import SET_OVER, FitNote, Spec, SpecT, validate
from cmsim.reading.writing import sweep, whole_file, whole_folder, write_text, written

__all__ = [
    "DATA",
    "SET_OVER",
    "Bytes",
    "Document",
    "FitNote",
    "Path_",
    "Size",
    "Spec",
    "SpecT",
    "Tokens",
    "TokensOrNone",
    "aliases_of",
    "builtin_files",
    "builtin_tree",
    "dotted",
    "exists",
    "find",
    "locate",
    "merge",
    "parse_json",
    "parse_yaml",
    "parts_of",
    "read_shared",
    "read_text",
    "read_yaml",
    "set_dotted",
    "size_at",
    "sweep",
    "validate",
    "whole",
    "whole_file",
    "whole_folder",
    "write_text",
    "written",
]
