"""TNVision's run line and YAML on this package: ``config`` declares the keys, ``read`` reads a file of them, ``run`` works,
``results`` writes. Imported by ``main.py`` alone.
"""
