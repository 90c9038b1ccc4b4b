"""The kinds of document that LlamaParse reads, by the end of the name."""

from __future__ import annotations

import re

_SUFFIXES = """
pdf 602 abw cgm cwk doc docx docm dot dotm dotx hwp hwpx key lwp mw mcw odt ott fodt pages pbd
ppt pptm pptx pot potm potx pps
ppsx odp otp fodp rtf sda sdd sdp sdw sgl sti sxi sxw stw sxg txt text md uof uop uot vor wpd wps xml zabw epub
jpg jpeg png gif bmp svg tif tiff webp heic heif htm html xhtml web eml msg
xlsx xls xlsm xlsb xltx xlw csv dif sylk slk prn numbers et ods ots fods uos1 uos2 dbf wk1 wk2 wk3 wk4 wks wq1 wq2
wb1 wb2 wb3 qpw xlr eth tsv
mp3 mp4 mpeg mpga m4a wav webm
"""

#: Suffixes, lower case, without the dot.
SUPPORTED = frozenset(_SUFFIXES.split())

#: What editors and browsers leave while they write.
_TEMPORARY = re.compile(
    r"~\$.*|.*~|.*\.(part|partial|crdownload|download|tmp|temp|swp|filepart|lock)|\.~lock\..*", re.I
)


def is_supported(name: str) -> bool:
    return name.rpartition(".")[2].lower() in SUPPORTED


def is_temporary(name: str) -> bool:
    """Whether another program is most likely still at work on it."""
    return _TEMPORARY.fullmatch(name) is not None
