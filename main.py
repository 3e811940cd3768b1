"""TNVision's run line: python main.py --task_type anomaly --model_type unsupervised --model_name sapatchcore
--yaml_config configs/anomaly/unsupervised/sapatchcore/bottle.yaml (docs/tnvision.md has every key).
"""

import sys

from sapatchcore.errors import MissingPackageError, learn_needed

if __name__ == "__main__":
    try:
        with learn_needed():
            from sapatchcore.tnvision.run import main
    except MissingPackageError as missing:
        sys.exit(f"sapatchcore: {missing}")
    sys.exit(main())
