"""The Vietnamese of what summary.py writes into README.vi.md."""

from __future__ import annotations

from collections.abc import Iterable

NAMES = {
    "coreset of 250,000 patches, 1 %": "coreset của 250.000 patch, 1 %",
    "the same, 10 %": "như trên, 10 %",
    "self-attention, one image": "self-attention, một ảnh",
    "fit of 320 images, whole": "toàn bộ fit với 320 ảnh",
    "predict, bank of 2,508": "predict, ngân hàng 2.508",
    "predict, bank of 25,088": "predict, ngân hàng 25.088",
    "predict in bfloat16": "predict ở bfloat16",
    "memory of fit": "bộ nhớ của fit",
    "all metrics of 160 images at 320×320": "mọi chỉ số của 160 ảnh 320×320",
    "predict with the built-in backbone": "predict với mạng nằm trong gói",
    "made screws of 700×700, on disk": "ốc vít được vẽ 700×700, ghi ra đĩa",
    "calibration, 320 images": "hiệu chuẩn, 320 ảnh",
    "an explanation, one image": "lời giải thích cho một ảnh",
    "report of 160 images": "báo cáo của 160 ảnh",
    "exported, OpenVINO int8, batch 1": "mô hình đã xuất, OpenVINO int8, từng ảnh một",
    "installed on a line PC": "cài đặt trên máy tính ở dây chuyền",
    "server, one client, built-in backbone": "máy chủ, một máy khách, mạng nằm trong gói",
    "server, 32 clients, built-in backbone": "máy chủ, 32 máy khách, mạng nằm trong gói",
}

DEMO = {
    "Image AUROC": "AUROC ảnh",
    "Pixel AUROC": "AUROC điểm ảnh",
    "Pixel F1": "F1 điểm ảnh",
    "Milliseconds an image": "Mili giây mỗi ảnh",
    "Made screws of ": "Ốc vít được vẽ, ",
    " pixels, resized to ": " điểm ảnh, đổi kích thước thành ",
    " good ones to learn from, ": " ảnh tốt để học, ",
    " of each kind to test.": " ảnh mỗi loại để kiểm tra.",
    "thread;": "luồng;",
    "threads;": "luồng;",
    "the time includes reading the files": "thời gian gồm cả việc đọc tệp",
    "- scratch": "- vết xước",
    "- paint": "- vết sơn",
    "- over-coupling": "- thừa đai ốc",
    "- lacking": "- thiếu đai ốc",
}

PHRASES = (
    ("faster than the plain loop", "nhanh hơn vòng lặp thường"),
    ("isotropic noise, the worst case", "nhiễu đẳng hướng, trường hợp xấu nhất"),
    ("covering radius", "bán kính phủ"),
    ("the plain loop's", "của vòng lặp thường"),
    ("the time of 1 %", "thời gian của 1 %"),
    ("noise:", "nhiễu:"),
    ("faster than the authors' form", "nhanh hơn cách của các tác giả"),
    ("of the bare network's time", "thời gian của riêng mạng"),
    ("the bare network over the same images, calibration included", "riêng mạng trên cùng số ảnh, kể cả hiệu chuẩn"),
    ("the bare network, batch 8", "riêng mạng, lô 8 ảnh"),
    ("the time of float32, batch 8; image AUROC of screw", "thời gian của float32, lô 8 ảnh; AUROC ảnh của screw"),
    ("against", "so với"),
    ("random weights", "trọng số ngẫu nhiên"),
    ("grows by", "tăng"),
    ("MB an image from 320 to 2,000 images", "MB mỗi ảnh khi đi từ 320 đến 2.000 ảnh"),
    ("faster than with Wide ResNet-50-2, batch 8", "nhanh hơn so với Wide ResNet-50-2, lô 8 ảnh"),
    ("images a second on one core as PNG", "ảnh mỗi giây trên một nhân ở dạng PNG"),
    ("as JPEG", "ở dạng JPEG"),
    ("s, maps included", "s, kể cả bản đồ"),
    ("of the rest of fit", "phần còn lại của fit"),
    ("built-in backbone:", "mạng nằm trong gói:"),
    (" ms on top of predict (p50)", " ms thêm vào predict (p50)"),
    ("ms on top of predict", "ms thêm vào predict"),
    ("faster than anomalib", "nhanh hơn bản xuất OpenVINO float32 của chính anomalib"),
    ("'s own OpenVINO export in float32", ""),
    ("× than its int8", "× so với int8 của nó"),
    ("GB without PyTorch", "GB không có PyTorch"),
    ("GB with it", "GB nếu có"),
    ("of predict's images a second", "số ảnh mỗi giây của predict"),
    (" to ", " đến "),
    ("s after scoring", "s sau khi chấm điểm"),
)


def translated(text: str, phrases: Iterable[tuple[str, str]]) -> str:
    """``text`` with every phrase replaced."""
    for english, vietnamese in phrases:
        text = text.replace(english, vietnamese)
    return text
