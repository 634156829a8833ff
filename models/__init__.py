"""The zoo: networks built directly in the IR, and small trained ones that ship with their samples.

`zoo` is the table of them all; nothing is imported before it is asked for.
"""
