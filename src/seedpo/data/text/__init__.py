"""Text files of records, known by their content: JSON lines, JSON arrays, CSV and TSV, one fault for each bad record.

:mod:`.lines` has the record and the text of a file, :mod:`.values` says what a row may hold and how messages quote it,
:mod:`.objects` reads JSON, :mod:`.delimited` reads CSV and TSV, and :mod:`.records` tells one from the other.
"""

from seedpo.data.text.delimited import csv_lines, csv_text, write_csv
from seedpo.data.text.lines import Line, read_text
from seedpo.data.text.objects import json_lines
from seedpo.data.text.records import records
from seedpo.data.text.values import shown, value_fault

__all__ = [
    "Line",
    "csv_lines",
    "csv_text",
    "json_lines",
    "read_text",
    "records",
    "shown",
    "value_fault",
    "write_csv",
]
