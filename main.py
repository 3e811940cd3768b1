"""TNVision's run line: python main.py --task_type anomaly --model_type unsupervised --model_name sapatchcore
--yaml_config configs/anomaly/unsupervised/sapatchcore/bottle.yaml (docs/tnvision.md has every key).
"""

import sys

from sapatchcore.tnvision.run import main

if __name__ == "__main__":
    sys.exit(main())
