"""TNVision's run line and YAML on this package: ``run`` works, ``config`` and ``read`` know the keys, ``results`` and
``pictures`` write. Imported by ``main.py`` alone.
"""
