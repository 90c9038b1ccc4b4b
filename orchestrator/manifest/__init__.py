"""Read a manifest: YAML and lists in, a valid Manifest out, or every mistake with its place.

Import from ``loading`` (``load``, ``check``, ``json_schema``, ``Manifest``). ``format`` has the checks that options
share with the manifest, ``lists`` reads the lists, ``fields`` and ``nodes`` are the layers below.
"""
